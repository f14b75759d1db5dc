"""Everything to know about the CUDA kernels from a GPU, in eight minutes: `python3 -m benchmarks.gpu_check FOLDER`.

`parts.py` lists what is run, `driver.py` runs each part in a process of its own with a limit of its own, and `page.py`
makes the Markdown page from the figures. Nothing but torch, numpy and pytest is needed, and no package is downloaded.
"""
