"""The classifiers of section 5 and what they are shown: standardised features and their principal components."""
