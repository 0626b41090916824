"""The geometry of features: their dimension, their variance, how classes collapse, and how alike two layers are."""
