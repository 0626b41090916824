"""The studies of the paper, one module each: opened networks and options in, a result out."""
