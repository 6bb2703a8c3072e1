"""The script env.sh, which activates an environment and redirects caches to node-local storage."""

from __future__ import annotations

import os
import shlex

MARKER = b"# made by ezpz yeet"
CACHE_VARIABLES = (
    b"TRITON_CACHE_DIR",
    b"TORCH_EXTENSIONS_DIR",
    b"TORCHINDUCTOR_CACHE_DIR",
    b"MPLCONFIGDIR",
    b"NUMBA_CACHE_DIR",
    b"CUDA_CACHE_PATH",
    b"CUPY_CACHE_DIR",
    b"PYTHON_EGG_CACHE",
)
TEMPLATE = b"""\
%(mark)b, for sh, bash and zsh: activates this environment and keeps what python caches on this node
. %(place)b/bin/activate
ezpz_cache="${TMPDIR:-/tmp}/ezpz-cache-$(id -u)"
if mkdir -p -m 700 "$ezpz_cache" && [ -O "$ezpz_cache" ] && [ ! -L "$ezpz_cache" ]; then
%(exports)b
fi
unset ezpz_cache
"""


def render_env_script(destination: bytes) -> bytes:
    """Return the content of `env.sh` for the environment at `destination`, which has a `bin/activate`.

    The caches go to a directory of this user in TMPDIR or /tmp. A directory that belongs to another user is not used.
    """
    exports = b"\n".join(b'  export %b="$ezpz_cache/%b"' % (name, name.lower()) for name in CACHE_VARIABLES)
    place = os.fsencode(shlex.quote(os.fsdecode(destination)))
    return TEMPLATE % {b"mark": MARKER, b"place": place, b"exports": exports}


def is_env_script(path: bytes) -> bool:
    """Return whether a file is an `env.sh` of an earlier run. It is relocated like any other text."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MARKER)) == MARKER
    except OSError:
        return False
