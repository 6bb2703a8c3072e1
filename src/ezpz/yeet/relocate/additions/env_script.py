"""env.sh: a script that activates an environment and points what it caches at node-local storage."""

from __future__ import annotations

import os
import shlex

MARK = b"# made by ezpz yeet"
CACHES = (
    b"TRITON_CACHE_DIR",
    b"TORCH_EXTENSIONS_DIR",
    b"TORCHINDUCTOR_CACHE_DIR",
    b"MPLCONFIGDIR",
    b"NUMBA_CACHE_DIR",
    b"CUDA_CACHE_PATH",
    b"CUPY_CACHE_DIR",
    b"PYTHON_EGG_CACHE",
)
TEXT = b"""\
%(mark)b, for sh, bash and zsh: activates this environment and keeps what python caches on this node
. %(place)b/bin/activate
ezpz_cache="${TMPDIR:-/tmp}/ezpz-cache-$(id -u)"
if mkdir -p -m 700 "$ezpz_cache" && [ -O "$ezpz_cache" ] && [ ! -L "$ezpz_cache" ]; then
%(exports)b
fi
unset ezpz_cache
"""


def environment_script(destination: bytes) -> bytes:
    """The content of `env.sh` for an environment that stands at `destination` and has a `bin/activate`.

    The caches go to a directory of this user in TMPDIR or /tmp; one that belongs to somebody else is not used.
    """
    exports = b"\n".join(b'  export %b="$ezpz_cache/%b"' % (name, name.lower()) for name in CACHES)
    place = os.fsencode(shlex.quote(os.fsdecode(destination)))
    return TEXT % {b"mark": MARK, b"place": place, b"exports": exports}


def is_ours(path: bytes) -> bool:
    """Whether a file is an `env.sh` of an earlier yeet, which is relocated as any other text."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MARK)) == MARK
    except OSError:
        return False
