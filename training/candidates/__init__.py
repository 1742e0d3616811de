"""The sources of candidates: one model, one file, none importing another. training/build.py makes them from the YAML."""
