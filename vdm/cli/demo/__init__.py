"""``vdm demo``: a page in the browser on which videos are made, with the code of ``vdm sample``."""
