"""Subtrees of the mounted tree, by what is behind them: nothing, a volume, a local folder."""
