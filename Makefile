sync:
