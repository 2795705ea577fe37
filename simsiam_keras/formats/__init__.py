"""An encoder in the formats that other programs run, each checked after it is written."""
