# Made by ezpz, for fish. `source THIS FILE` activates the environment; `deactivate` undoes it.

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
