"""The grammar of the command line, declared with click. It imports no command, so that `--help` stays fast."""
