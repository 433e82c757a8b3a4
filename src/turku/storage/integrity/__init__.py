"""The proof that stored files are good: scrubs, repair, comparison with the machine, restore drills."""
