"""One destination on one host: validate, lock, stage, verify, publish, list, remove."""
