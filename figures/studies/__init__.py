"""One module a study, with its chart and its table in `FIGURE`; found by the register of studies."""
