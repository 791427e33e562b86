"""Records that said something wrong: changed, moved or void by entries that can be taken back."""
