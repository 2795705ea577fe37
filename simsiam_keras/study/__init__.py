"""The paper's experiments as a command: grids, the runner that fills them, the report on them."""
