"""The web demo: a page that shows what every control does, and endpoints for programs.

It is a `gr.Blocks` (`page.py`), and needs gradio: `pip install 'fundamentallm-hf[space]'`. Settings come from
`generation_settings.py` and texts from the `Generator`, as everywhere; the modules here check what visitors ask for,
show what was written, and say how to have it again.
"""
