"""launch/masking.py: no secret is shown, and the line still runs."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.launch.masking import mask_environment, mask_words, shell_line

ENVIRON = {
    "HF_TOKEN": "hf_0123456789",
    "WANDB_API_KEY": "wandb-abcdef",
    "TOKENIZERS_PARALLELISM": "false",
    "A": "plain",
}


def test_values_of_secret_variables_are_masked() -> None:
    masked = mask_environment({**ENVIRON, "DB_PASSWORD": "x", "MY_SECRET": "", "credential_file": "/x"})
    assert {name for name, value in masked.items() if value == "***"} == {
        "HF_TOKEN",
        "WANDB_API_KEY",
        "TOKENIZERS_PARALLELISM",
        "DB_PASSWORD",
        "credential_file",
    }


@pytest.mark.parametrize(
    ("line", "masked", "pasteable"),
    [
        ("app --auth hf_0123456789", "app --auth ***", 'app --auth "${HF_TOKEN}"'),
        ("app --auth=Bearer:hf_0123456789!", "app --auth=Bearer:***!", "app --auth=Bearer:\"${HF_TOKEN}\"'!'"),
        ("app --token abc --n 4", "app --token *** --n 4", "app --token '***' --n 4"),
        ("app --api-key=abc", "app --api-key=***", "app --api-key='***'"),
        ("mpiexec -genv MY_KEY abc app", "mpiexec -genv MY_KEY *** app", "mpiexec -genv MY_KEY '***' app"),
        ("mpiexec -x MY_TOKEN=abc app", "mpiexec -x MY_TOKEN=*** app", "mpiexec -x MY_TOKEN='***' app"),
        ("app --tokenizer bert --flag false", "app --tokenizer bert --flag false", "app --tokenizer bert --flag false"),
        ("app a=b -k=v", "app a=b -k=v", "app a=b -k=v"),
    ],
)
def test_words_of_a_line(line: str, masked: str, pasteable: str) -> None:
    assert " ".join(mask_words(line.split(), ENVIRON)) == masked
    assert shell_line(line.split(), ENVIRON) == pasteable


words = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=4)


@given(words)
def test_what_holds_no_secret_is_quoted_as_it_is(found: list[str]) -> None:
    plain = [word for word in found if "=" not in word and not word.startswith("-")]
    assert shlex.split(shell_line(plain, ENVIRON)) == plain


def test_a_shell_puts_the_secret_back() -> None:
    line = shell_line(["printf", "%s|", "", "x hf_0123456789 y", "$A"], ENVIRON)
    assert "hf_" not in line
    done = subprocess.run(["sh", "-c", line], env=ENVIRON, capture_output=True, text=True)
    assert done.stdout == "|x hf_0123456789 y|$A|"
