"""The files of a checkpoint: checked before they are read, and errors that say what to do."""
