"""What a program asks of the engine: submit, wait, cancel, rerun, replay. Needs no worker."""
