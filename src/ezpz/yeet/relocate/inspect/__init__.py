"""What an environment tells about itself: names, interpreter, base, editable installs, and libraries."""
