"""Configuration directories: reading, merging and checking the files of one program."""
