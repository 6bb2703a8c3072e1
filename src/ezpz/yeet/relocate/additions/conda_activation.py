"""Scripts for each shell that activate a conda environment without conda.

Conda's own activation would use the source.
"""

from __future__ import annotations

import os
import re

SH = rb"""# Made by ezpz, for sh, bash, zsh and dash. `. THIS FILE` activates the environment; `deactivate` undoes it.

if command -v _ezpz_conda_undo >/dev/null 2>&1; then _ezpz_conda_undo; fi

_ezpz_conda_source() { . "$_ezpz_conda_file"; }

_ezpz_conda_scripts() {  # PREFIX activate|deactivate: source its scripts, the last one first for deactivate
    [ -d "$1/etc/conda/$2.d" ] || return 0
    if [ -n "${ZSH_VERSION-}" ]; then
        eval 'set -- "$2" "$1/etc/conda/$2.d"/*.sh(N)'
    else
        set -- "$2" "$1/etc/conda/$2.d"/*.sh
    fi
    _ezpz_conda_when=$1
    shift
    _ezpz_conda_left=$#
    if [ "$_ezpz_conda_when" = deactivate ]; then
        for _ezpz_conda_file in "$@"; do set -- "$_ezpz_conda_file" "$@"; done
    fi
    _ezpz_conda_strict=  # many of conda-forge's scripts bear neither -e nor -u
    case $- in *e*) _ezpz_conda_strict=e ;; esac
    case $- in *u*) _ezpz_conda_strict=${_ezpz_conda_strict}u ;; esac
    set +eu
    while [ "$_ezpz_conda_left" -gt 0 ]; do
        _ezpz_conda_file=$1
        if [ -r "$_ezpz_conda_file" ]; then _ezpz_conda_source; fi
        shift
        _ezpz_conda_left=$((_ezpz_conda_left - 1))
    done
    if [ -n "$_ezpz_conda_strict" ]; then set "-$_ezpz_conda_strict"; fi
}

_ezpz_conda_drop() {  # PREFIX: take its bin out of PATH; false when it is not there
    case ":${PATH-}:" in *":$1/bin:"*) ;; *) return 1 ;; esac
    _ezpz_conda_path=":${PATH-}:"
    _ezpz_conda_path=${_ezpz_conda_path%%":$1/bin:"*}:${_ezpz_conda_path#*":$1/bin:"}
    _ezpz_conda_path=${_ezpz_conda_path#:}
    PATH=${_ezpz_conda_path%:}
}

_ezpz_conda_restore() {  # NAME VALUE: export it, or forget it when it was empty
    if [ -n "$2" ]; then eval "$1=\$2; export $1"; else unset "$1"; fi
}

_ezpz_conda_undo() {
    _ezpz_conda_scripts "$_ezpz_conda_prefix" deactivate
    _ezpz_conda_drop "$_ezpz_conda_prefix" || :
    if [ -n "$_ezpz_conda_old_bin" ]; then PATH=$_ezpz_conda_old_bin${PATH:+:$PATH}; fi
    if [ -n "$_ezpz_conda_old" ]; then unset "CONDA_PREFIX_$_ezpz_conda_level"; fi
    if [ -n "${PS1-}" ]; then PS1=${PS1#"$_ezpz_conda_prompt"}; fi
    _ezpz_conda_restore CONDA_PREFIX "$_ezpz_conda_old"
    _ezpz_conda_restore CONDA_DEFAULT_ENV "$_ezpz_conda_old_name"
    _ezpz_conda_restore CONDA_SHLVL "$_ezpz_conda_old_level"
    _ezpz_conda_restore CONDA_PROMPT_MODIFIER "$_ezpz_conda_old_prompt"
    if [ -n "$_ezpz_conda_old" ]; then _ezpz_conda_scripts "$_ezpz_conda_old" activate; fi
    hash -r 2>/dev/null || :
    unset _ezpz_conda_prefix _ezpz_conda_prompt _ezpz_conda_level _ezpz_conda_old _ezpz_conda_old_bin
    unset _ezpz_conda_old_name _ezpz_conda_old_level _ezpz_conda_old_prompt
    unset _ezpz_conda_file _ezpz_conda_when _ezpz_conda_left _ezpz_conda_strict _ezpz_conda_path
    unset -f _ezpz_conda_source _ezpz_conda_scripts _ezpz_conda_drop _ezpz_conda_restore _ezpz_conda_undo deactivate
}

deactivate() {  # the activation of a venv calls it as `deactivate nondestructive`
    if [ "${1-}" != nondestructive ]; then _ezpz_conda_undo; fi
}

_ezpz_conda_prefix=@PREFIX@
_ezpz_conda_prompt='(@NAME@) '
_ezpz_conda_old=${CONDA_PREFIX-}
_ezpz_conda_old_bin=
_ezpz_conda_old_name=${CONDA_DEFAULT_ENV-}
_ezpz_conda_old_level=${CONDA_SHLVL-}
_ezpz_conda_old_prompt=${CONDA_PROMPT_MODIFIER-}
_ezpz_conda_level=$_ezpz_conda_old_level
case $_ezpz_conda_level in '' | *[!0-9]* | 0?*) _ezpz_conda_level=0 ;; esac
if [ -n "$_ezpz_conda_old" ]; then
    _ezpz_conda_scripts "$_ezpz_conda_old" deactivate
    if _ezpz_conda_drop "$_ezpz_conda_old"; then _ezpz_conda_old_bin=$_ezpz_conda_old/bin; fi
    _ezpz_conda_restore "CONDA_PREFIX_$_ezpz_conda_level" "$_ezpz_conda_old"
fi
_ezpz_conda_restore PATH "$_ezpz_conda_prefix/bin${PATH:+:$PATH}"
_ezpz_conda_restore CONDA_PREFIX "$_ezpz_conda_prefix"
_ezpz_conda_restore CONDA_DEFAULT_ENV @BASE@
_ezpz_conda_restore CONDA_SHLVL "$((_ezpz_conda_level + 1))"
_ezpz_conda_restore CONDA_PROMPT_MODIFIER "$_ezpz_conda_prompt"
if [ -n "${PS1-}" ]; then PS1=$_ezpz_conda_prompt$PS1; fi
_ezpz_conda_scripts "$_ezpz_conda_prefix" activate
hash -r 2>/dev/null || :
"""

FISH = rb"""# Made by ezpz, for fish. `source THIS FILE` activates the environment; `deactivate` undoes it.

functions -q _ezpz_conda_undo; and _ezpz_conda_undo

function _ezpz_conda_scripts -a prefix moment
    set -l scripts $prefix/etc/conda/$moment.d/*.fish
    if test $moment = deactivate
        set scripts $scripts[-1..1]
    end
    for script in $scripts
        source $script
    end
end

function _ezpz_conda_drop -a prefix
    set -l at (contains -i -- $prefix/bin $PATH); and set -e PATH[$at]
end

function _ezpz_conda_restore -a name value
    if test -n "$value"
        set -gx $name $value
    else
        set -e -g $name
    end
end

function _ezpz_conda_undo
    _ezpz_conda_scripts $_ezpz_conda_prefix deactivate
    _ezpz_conda_drop $_ezpz_conda_prefix
    test -n "$_ezpz_conda_old_bin"; and set -gx PATH $_ezpz_conda_old_bin $PATH
    test -n "$_ezpz_conda_old"; and set -e -g CONDA_PREFIX_$_ezpz_conda_level
    if functions -q _ezpz_conda_old_fish_prompt
        functions -e fish_prompt
        functions -c _ezpz_conda_old_fish_prompt fish_prompt
        functions -e _ezpz_conda_old_fish_prompt
    end
    _ezpz_conda_restore CONDA_PREFIX $_ezpz_conda_old
    _ezpz_conda_restore CONDA_DEFAULT_ENV $_ezpz_conda_old_name
    _ezpz_conda_restore CONDA_SHLVL $_ezpz_conda_old_level
    _ezpz_conda_restore CONDA_PROMPT_MODIFIER $_ezpz_conda_old_prompt
    test -n "$_ezpz_conda_old"; and _ezpz_conda_scripts $_ezpz_conda_old activate
    set -e -g _ezpz_conda_prefix _ezpz_conda_prompt _ezpz_conda_level _ezpz_conda_old _ezpz_conda_old_bin
    set -e -g _ezpz_conda_old_name _ezpz_conda_old_level _ezpz_conda_old_prompt
    functions -e _ezpz_conda_scripts _ezpz_conda_drop _ezpz_conda_restore _ezpz_conda_undo deactivate
end

function deactivate -d 'Leave the conda environment'
    test "$argv[1]" = nondestructive; or _ezpz_conda_undo
end

set -g _ezpz_conda_prefix @PREFIX@
set -g _ezpz_conda_prompt '(@NAME@) '
set -g _ezpz_conda_old $CONDA_PREFIX
set -g _ezpz_conda_old_bin
set -g _ezpz_conda_old_name $CONDA_DEFAULT_ENV
set -g _ezpz_conda_old_level $CONDA_SHLVL
set -g _ezpz_conda_old_prompt $CONDA_PROMPT_MODIFIER
set -g _ezpz_conda_level 0
string match -qr '^(0|[1-9][0-9]*)$' -- "$CONDA_SHLVL"; and set _ezpz_conda_level $CONDA_SHLVL
if test -n "$_ezpz_conda_old"
    _ezpz_conda_scripts $_ezpz_conda_old deactivate
    _ezpz_conda_drop $_ezpz_conda_old; and set _ezpz_conda_old_bin $_ezpz_conda_old/bin
    set -gx CONDA_PREFIX_$_ezpz_conda_level $_ezpz_conda_old
end
set -gx PATH $_ezpz_conda_prefix/bin $PATH
set -gx CONDA_PREFIX $_ezpz_conda_prefix
set -gx CONDA_DEFAULT_ENV @BASE@
set -gx CONDA_SHLVL (math $_ezpz_conda_level + 1)
set -gx CONDA_PROMPT_MODIFIER $_ezpz_conda_prompt
if functions -q fish_prompt
    functions -c fish_prompt _ezpz_conda_old_fish_prompt
    function fish_prompt
        set -l prompt (_ezpz_conda_old_fish_prompt)  # first, since it may show the status
        echo -n $_ezpz_conda_prompt
        string join -- \n $prompt
    end
end
_ezpz_conda_scripts $_ezpz_conda_prefix activate
true  # as in `source THIS FILE; and ...`, whatever the last script ended with
"""

CSH = rb"""# Made by ezpz, for csh and tcsh. `source THIS FILE` activates the environment; `deactivate` undoes it.
# csh has no functions: the file sources itself for the step that is named, and that is where each ends.

if ( ! $?_ezpz_conda_step ) set _ezpz_conda_step = activate

if ( "$_ezpz_conda_step" == scripts ) then  # of _ezpz_conda_from, for _ezpz_conda_when
    setenv _EZPZ_CONDA_FROM "$_ezpz_conda_from/etc/conda/$_ezpz_conda_when.d"
    setenv _EZPZ_CONDA_LIST 'cd "$_EZPZ_CONDA_FROM" 2>/dev/null && ls -1'
    set _ezpz_conda_files = ( "`printenv _EZPZ_CONDA_LIST | sh`" )  # tcsh globs nothing below a name that is not ASCII
    set _ezpz_conda_at = 1
    set _ezpz_conda_by = 1
    if ( "$_ezpz_conda_when" == deactivate ) then
        set _ezpz_conda_at = $#_ezpz_conda_files
        set _ezpz_conda_by = -1
    endif
    while ( $_ezpz_conda_at >= 1 && $_ezpz_conda_at <= $#_ezpz_conda_files )
        set _ezpz_conda_file = "$_EZPZ_CONDA_FROM/$_ezpz_conda_files[$_ezpz_conda_at]"
        if ( "$_ezpz_conda_file" =~ *.csh ) source "$_ezpz_conda_file"
        @ _ezpz_conda_at += $_ezpz_conda_by
    end
    unset _ezpz_conda_files _ezpz_conda_at _ezpz_conda_by _ezpz_conda_file _ezpz_conda_from _ezpz_conda_when
    unsetenv _EZPZ_CONDA_FROM
    unsetenv _EZPZ_CONDA_LIST
endif

if ( "$_ezpz_conda_step" == drop ) then  # _ezpz_conda_bin out of PATH; _ezpz_conda_found says whether it was there
    set _ezpz_conda_path = ( )
    set _ezpz_conda_found = 0
    foreach _ezpz_conda_each ( $path:q )
        if ( "x$_ezpz_conda_each" == "x$_ezpz_conda_bin" && ! $_ezpz_conda_found ) then
            set _ezpz_conda_found = 1
        else
            set _ezpz_conda_path = ( $_ezpz_conda_path:q "$_ezpz_conda_each" )
        endif
    end
    set path = ( $_ezpz_conda_path:q )
    unset _ezpz_conda_path _ezpz_conda_each _ezpz_conda_bin
endif

if ( "$_ezpz_conda_step" == undo ) then
    set _ezpz_conda_step = scripts
    set _ezpz_conda_from = "$_ezpz_conda_prefix"
    set _ezpz_conda_when = deactivate
    source "$_ezpz_conda_script"
    set _ezpz_conda_step = drop
    set _ezpz_conda_bin = "$_ezpz_conda_prefix/bin"
    source "$_ezpz_conda_script"
    if ( "$_ezpz_conda_old_bin" != "" ) set path = ( "$_ezpz_conda_old_bin" $path:q )
    if ( "$_ezpz_conda_old" != "" ) unsetenv CONDA_PREFIX_$_ezpz_conda_level
    if ( $?_ezpz_conda_old_shown ) then
        set prompt = "$_ezpz_conda_old_shown:q"
    endif
    unsetenv CONDA_PREFIX
    unsetenv CONDA_DEFAULT_ENV
    unsetenv CONDA_SHLVL
    unsetenv CONDA_PROMPT_MODIFIER
    if ( "$_ezpz_conda_old" != "" ) setenv CONDA_PREFIX "$_ezpz_conda_old"
    if ( "$_ezpz_conda_old_name" != "" ) setenv CONDA_DEFAULT_ENV "$_ezpz_conda_old_name"
    if ( "$_ezpz_conda_old_level" != "" ) setenv CONDA_SHLVL "$_ezpz_conda_old_level"
    if ( "$_ezpz_conda_old_prompt" != "" ) setenv CONDA_PROMPT_MODIFIER "$_ezpz_conda_old_prompt"
    if ( "$_ezpz_conda_old" != "" ) then
        set _ezpz_conda_step = scripts
        set _ezpz_conda_from = "$_ezpz_conda_old"
        set _ezpz_conda_when = activate
        source "$_ezpz_conda_script"
    endif
    unalias deactivate
    rehash
    set _ezpz_conda_step = undone
    unset _ezpz_conda_prefix _ezpz_conda_script _ezpz_conda_level _ezpz_conda_found _ezpz_conda_old _ezpz_conda_old_bin
    unset _ezpz_conda_old_name _ezpz_conda_old_level _ezpz_conda_old_prompt _ezpz_conda_old_shown
endif

if ( "$_ezpz_conda_step" == activate ) then
    if ( $?_ezpz_conda_script ) then
        set _ezpz_conda_step = undo
        source "$_ezpz_conda_script"
    endif
    set _ezpz_conda_prefix = @PREFIX@
    set _ezpz_conda_script = "$_ezpz_conda_prefix/bin/activate.csh"
    set _ezpz_conda_old = ""
    set _ezpz_conda_old_bin = ""
    set _ezpz_conda_old_name = ""
    set _ezpz_conda_old_level = ""
    set _ezpz_conda_old_prompt = ""
    if ( $?CONDA_PREFIX ) then
        set _ezpz_conda_old = "$CONDA_PREFIX"
    endif
    if ( $?CONDA_DEFAULT_ENV ) then
        set _ezpz_conda_old_name = "$CONDA_DEFAULT_ENV"
    endif
    if ( $?CONDA_SHLVL ) then
        set _ezpz_conda_old_level = "$CONDA_SHLVL"
    endif
    if ( $?CONDA_PROMPT_MODIFIER ) then
        set _ezpz_conda_old_prompt = "$CONDA_PROMPT_MODIFIER"
    endif
    set _ezpz_conda_level = "$_ezpz_conda_old_level"
    if ( "$_ezpz_conda_level" !~ [1-9]* || "$_ezpz_conda_level" =~ *[^0-9]* ) set _ezpz_conda_level = 0
    if ( "$_ezpz_conda_old" != "" ) then
        set _ezpz_conda_step = scripts
        set _ezpz_conda_from = "$_ezpz_conda_old"
        set _ezpz_conda_when = deactivate
        source "$_ezpz_conda_script"
        set _ezpz_conda_step = drop
        set _ezpz_conda_bin = "$_ezpz_conda_old/bin"
        source "$_ezpz_conda_script"
        if ( $_ezpz_conda_found ) set _ezpz_conda_old_bin = "$_ezpz_conda_old/bin"
        setenv CONDA_PREFIX_$_ezpz_conda_level "$_ezpz_conda_old"
    endif
    set path = ( "$_ezpz_conda_prefix/bin" $path:q )
    setenv CONDA_PREFIX "$_ezpz_conda_prefix"
    setenv CONDA_DEFAULT_ENV @BASE@
    @ _ezpz_conda_found = $_ezpz_conda_level + 1
    setenv CONDA_SHLVL $_ezpz_conda_found
    setenv CONDA_PROMPT_MODIFIER '(@NAME@) '
    if ( $?prompt ) then
        set _ezpz_conda_old_shown = "$prompt:q"
        set prompt = '(@NAME@) '"$prompt:q"
    endif
    alias deactivate 'set _ezpz_conda_step = undo; source "$_ezpz_conda_script"'
    set _ezpz_conda_step = scripts
    set _ezpz_conda_from = "$_ezpz_conda_prefix"
    set _ezpz_conda_when = activate
    source "$_ezpz_conda_script"
    rehash
    set _ezpz_conda_step = done
endif

if ( "$_ezpz_conda_step" == "done" || "$_ezpz_conda_step" == undone ) unset _ezpz_conda_step
"""


def standalone_activation(destination: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the path and content of the scripts for each shell that activate the conda environment at `destination`.

    Like conda, they put its programs first in PATH, name it in the prompt and in CONDA_*, leave the active environment,
    and run `etc/conda/activate.d`. `deactivate` restores the environment that was active.
    """
    name = os.path.basename(destination.rstrip(b"/"))
    shown = re.sub(rb"[^\w.+@ \x80-\xff-]", b"_", name)  # a prompt is expanded each time
    return (
        (b"bin/activate", _fill_template(SH, shown, _quote_sh(name), _quote_sh(destination))),
        (b"bin/activate.fish", _fill_template(FISH, shown, _quote_fish(name), _quote_fish(destination))),
        (b"bin/activate.csh", _fill_template(CSH, shown, _quote_csh(name), _quote_csh(destination))),
    )


def _fill_template(script: bytes, shown: bytes, base: bytes, prefix: bytes) -> bytes:
    words = {b"@NAME@": shown, b"@BASE@": base, b"@PREFIX@": prefix}
    return re.sub(rb"@[A-Z]+@", lambda match: words[match.group()], script)


def _quote_sh(path: bytes) -> bytes:
    return b"'" + path.replace(b"'", rb"'\''") + b"'"


def _quote_fish(path: bytes) -> bytes:
    return b"'" + path.replace(b"\\", rb"\\").replace(b"'", rb"\'") + b"'"


def _quote_csh(path: bytes) -> bytes:
    """Return a path quoted for csh, including its history expansion, which applies within quotes."""
    return b"'" + path.replace(b"'", rb"'\''").replace(b"!", rb"\!") + b"'"
