"""The Space: FundamentaLLM-HF's web demo with the bundled story model.

A Space runs this file; elsewhere `fundamentallm space` starts the same page. It holds nothing of its own.
"""

try:  # ZeroGPU lends a GPU to what this decorates. It has to be imported before torch, and is not there elsewhere.
    import spaces
except ImportError:
    apart = None
else:
    apart = spaces.GPU if spaces.config.Config.zero_gpu else None

from fundamentallm_hf.web.app import create_app, launch_options

demo = create_app(apart=apart)

if __name__ == "__main__":
    demo.launch(**launch_options())
