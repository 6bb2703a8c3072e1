"""launch/masking.py: no secret is shown, and the line still runs."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ezpz.launch.plan.secrets import mask_environment, mask_words, quote_words

ENVIRON = {
    "HF_TOKEN": "hf_0123456789",
    "WANDB_API_KEY": "wandb-abcdef",
    "TOKENIZERS_PARALLELISM": "false",
    "A": "plain",
}


def test_values_of_secret_variables_are_masked() -> None:
    others = {"DB_PASSWORD": "x", "MY_SECRET": "", "credential_file": "/x", "PGPASS": "x", "GITHUB_PAT": "x"}
    masked = mask_environment({**ENVIRON, **others, "PATH": "/bin", "XPATH": "/", "OAUTH_URL": "u"})
    assert {name for name, value in masked.items() if value == "***"} == {
        "HF_TOKEN",
        "WANDB_API_KEY",
        "TOKENIZERS_PARALLELISM",
        "DB_PASSWORD",
        "credential_file",
        "PGPASS",
        "GITHUB_PAT",
    }


@pytest.mark.parametrize(
    ("line", "masked", "shell_line"),
    [
        ("app --auth hf_0123456789", "app --auth ***", 'app --auth "${HF_TOKEN}"'),
        ("app --auth=Bearer:hf_0123456789!", "app --auth=Bearer:***!", "app --auth=Bearer:\"${HF_TOKEN}\"'!'"),
        ("app --token abc --n 4", "app --token *** --n 4", "app --token '***' --n 4"),
        ("app --api-key=abc", "app --api-key=***", "app --api-key='***'"),
        ("mpiexec -genv MY_KEY abc app", "mpiexec -genv MY_KEY *** app", "mpiexec -genv MY_KEY '***' app"),
        ("mpiexec -x MY_TOKEN=abc app", "mpiexec -x MY_TOKEN=*** app", "mpiexec -x MY_TOKEN='***' app"),
        ("app --tokenizer bert --flag false", "app --tokenizer bert --flag false", "app --tokenizer bert --flag false"),
        ("app a=b -k=v", "app a=b -k=v", "app a=b -k=v"),
        ("mpiexec -env A_KEY abc app", "mpiexec -env A_KEY *** app", "mpiexec -env A_KEY '***' app"),
        ("mpiexec --env=MY_TOKEN=abc app", "mpiexec --env=MY_TOKEN=*** app", "mpiexec --env=MY_TOKEN='***' app"),
        (
            "srun --export=ALL,A=b,MY_PAT=abc app",
            "srun --export=ALL,A=b,MY_PAT=*** app",
            "srun --export=ALL,A=b,MY_PAT='***' app",
        ),
        ("app tokenizer=bert monkey=1 x.y=z", "app tokenizer=bert monkey=1 x.y=z", "app tokenizer=bert monkey=1 x.y=z"),
    ],
)
def test_words_of_a_line(line: str, masked: str, shell_line: str) -> None:
    assert " ".join(mask_words(line.split(), ENVIRON)) == masked
    assert quote_words(line.split(), ENVIRON) == shell_line


words = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=4)


@pytest.mark.processes
@given(words)
@example(["a\x1bb", "\udcff", "new\nline\n", "tab\t", "", "nb\xa0sp", "it's", "$HOME", "*"])
@settings(max_examples=min(30, settings().max_examples))
def test_what_holds_no_secret_is_what_a_shell_makes_of_it(found: list[str]) -> None:
    plain = [word for word in found if "=" not in word and not word.startswith("-")]
    line = quote_words(["printf", "%s\\0", *plain], {})
    assert all(character.isprintable() or character == "\n" for character in line)
    done = subprocess.run(["sh", "-c", line], capture_output=True, env={"PATH": "/usr/bin:/bin"})
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in plain or [""]]


@pytest.mark.processes
def test_a_shell_puts_the_secret_back() -> None:
    line = quote_words(["printf", "%s|", "", "x hf_0123456789 y", "$A"], ENVIRON)
    assert "hf_" not in line
    done = subprocess.run(["sh", "-c", line], env=ENVIRON, capture_output=True, text=True)
    assert done.stdout == "|x hf_0123456789 y|$A|"
