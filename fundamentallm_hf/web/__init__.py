"""The web demo: a page on which one sees what every control does, and the same for programs.

It is a `gr.Blocks` (`page.py`), and needs gradio: `pip install 'fundamentallm-hf[space]'`. Settings come from
`settings.py` and texts from the `Generator`, as everywhere; the files here only check what visitors ask for, show what
was written, and say how to have it again. No model repository needs them, so they may lie in a folder of their own.
"""
