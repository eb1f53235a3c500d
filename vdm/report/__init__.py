"""The report of runs: one HTML page that needs no other file and no network. Nothing here imports PyTorch.

What is read of a run (``run.py`` and what it calls) becomes plain values (``page.py``), which travel as JSON inside the
page. The page's own scripts draw them, and put every text into the page as text.
"""
