"""The limits of a child that handles data of a machine: sandbox, system calls, time, memory and disk space."""
