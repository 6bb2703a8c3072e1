# Made by ezpz, for sh, bash, zsh and dash. `. THIS FILE` activates the environment; `deactivate` undoes it.

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
