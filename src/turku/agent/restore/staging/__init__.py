"""Staging: the directory in the target that receives the files of a storage, and the basis files in it."""
