"""One self-contained HTML page of saved results, beside what the paper found."""
