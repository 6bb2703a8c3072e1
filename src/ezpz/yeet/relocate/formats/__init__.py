"""File formats that hold paths: shebangs, ELF, pyvenv.cfg, .pth, conda records, shell text."""
