"""File formats that contain paths: shebangs, ELF, pyvenv.cfg, .pth, conda records, and shell text."""
