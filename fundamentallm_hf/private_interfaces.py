"""The non-public interfaces of other libraries that this package relies on, one entry each.

The list is not used at run time. `tests/test_private_interfaces.py` has a test for every entry, named after it, so that
under another version the failing test names the change; another test finds uses that are not listed.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Private:
    """An interface that may change without notice.

    Attributes:
        of: the package that has it, by its import name.
        name: its name in that package.
        why: what it is used for, and why no public interface is enough.
        since: the first version that has it in this form, as far as is known.
    """

    of: str
    name: str
    why: str
    since: str = "the lowest version that is admitted"


PRIVATE = (
    # Generation
    Private(
        "transformers",
        "generation.utils.GENERATION_MODES_MAPPING",
        "names the loop of a mode. A callable in `custom_generate` replaces a loop, but does not know which.",
    ),
    Private(
        "transformers",
        "GenerationMixin._sample",
        "the loop of greedy decoding and sampling, called as `generate()` calls it. There is no public one.",
    ),
    Private(
        "transformers",
        "GenerationMixin._beam_search",
        "the loop of beams, in the same way. Where nothing is drawn it shows the stopping criteria the candidates of "
        "every step best first, of which the progress of a search shows the first one.",
    ),
    Private(
        "transformers",
        "GenerationMixin._assisted_decoding",
        "the loop of assisted decoding, in the same way; it also takes what `generate()` withholds from a callable.",
    ),
    Private(
        "transformers",
        "GenerationMixin._get_candidate_generator",
        "where the loop of assisted decoding gets its candidates, which are replaced by those that controls force.",
    ),
    Private(
        "transformers",
        "generation.candidate_generator.CandidateGenerator",
        "the class of what gives candidates; only its module exports it.",
    ),
    Private(
        "transformers",
        "PreTrainedModel._is_stateful",
        "a model whose cache cannot go back, so no candidates are checked with it.",
    ),
    Private(
        "transformers",
        "GenerationMixin._get_top_k_continuations",
        "chooses the candidates of a step of beam search, best first where nothing is drawn. Those that are drawn are "
        "drawn before it, since it draws masked ones too.",
    ),
    Private(
        "transformers",
        "GenerationMixin._get_running_beams_for_next_iteration",
        "chooses the beams that continue; it gets copies of allowed ones in place of those that ended or are masked.",
    ),
    Private(
        "transformers",
        "GenerationMixin._update_finished_beams",
        "collects the finished texts of a beam search; it must not take unfinished ones for them.",
    ),
    Private(
        "transformers",
        "generation.MaxLengthCriteria.max_position_embeddings",
        "the number in a warning about a limit that FundamentaLLM models can exceed.",
    ),
    Private(
        "transformers",
        "cache_utils.DynamicLayer.keys",
        "a cache lends rows to the lookahead without a copy; the public interface can only change a cache.",
    ),
    Private(
        "transformers",
        "cache_utils.StaticLayer.max_cache_len",
        "the length of a static cache that `generate()` has made.",
    ),
    Private(
        "transformers",
        "cache_utils.DynamicLayer.lazy_initialization",
        "a cache is given the keys and values that our own loop holds, for the look-ahead to borrow; `update` would "
        "copy them at every step.",
    ),
    Private(
        "torch",
        "nn.Module._forward_hooks",
        "with `_forward_pre_hooks` and `_global_forward_hooks` and `_global_forward_pre_hooks` of "
        "`nn.modules.module`: whether anybody listens to a module. A pass that calls no modules must know.",
    ),
    Private(
        "torch",
        "nn.Module._compiled_call_impl",
        "whether a module was compiled in place, by `Module.compile()`.",
    ),
    Private(
        "transformers",
        "GenerationMixin._update_model_kwargs_for_generation",
        "a method that `generate()` calls in every step: whoever replaces it means it to be called.",
    ),
    # The model
    Private(
        "transformers",
        "PreTrainedConfig._attn_implementation",
        "which attention is in use; every model of transformers reads it there.",
    ),
    Private(
        "transformers",
        "PreTrainedModel class attributes",
        "`_init_weights`, `_no_split_modules`, `_skip_keys_device_placement`, `_tied_weights_keys`, `_supports_*`, "
        "`_can_compile_fullgraph`, `_can_record_outputs`, `_tp_plan` and `_pp_plan` are how a model describes itself.",
    ),
    Private(
        "transformers",
        "PreTrainedConfig._commit_hash",
        "the commit that a model was loaded from: its tokenizer and attributes are looked up in the same commit.",
    ),
    Private(
        "transformers",
        "utils.hub.resolve_revision",
        "the commit of a revision before anything is loaded, as `resolved` of what it returns.",
    ),
    # Commands
    Private(
        "transformers",
        "models.auto.configuration_auto.CONFIG_MAPPING",
        "which kinds of models load without code of their own.",
    ),
    Private(
        "transformers",
        "cli.transformers.main",
        "the command `transformers serve`, run in the process that has the classes registered.",
    ),
    Private(
        "transformers",
        "cli.serving.utils.CBGenerateManager",
        "answers the requests of a server in a common batch, with the sampling of the first request; `_cb` and "
        "`_cb_config` are that batch. A server has no option for another class.",
    ),
    Private(
        "transformers",
        "cli.serving.utils.GenerateManager",
        "answers the others by `generate()`, one after the other; a subclass computes them together. Its streams are a "
        "`DirectStreamer` over the tokenizer's `_tokenizer`, and errors in them a `_StreamError`.",
    ),
    Private(
        "transformers",
        "cli.serving.model_manager.TimedModel",
        "holds a model of a server until it has not been used for a while. Nothing tells that it is unloaded: "
        "`delete_model`, which does it, is replaced by one that also ends our batcher of it.",
    ),
    Private(
        "transformers",
        "cli.serving.utils.BaseHandler",
        "reads the requests of a server: `_validate_request`, `_resolve_model` and `_build_generation_config` are "
        "replaced to check all fields; `build_server` of `cli.serving.server`, to add a key and metrics.",
    ),
    Private(
        "transformers",
        "cli.serve.Serve",
        "makes the application of a server. No function returns it: `start_server` is replaced to do nothing, and "
        "`server.config.app`, made with the hidden option `--non-blocking`, is handed to uvicorn's supervisor. Its "
        "command is in `app` of `cli.transformers`.",
    ),
    Private(
        "uvicorn",
        "supervisors.Multiprocess",
        "starts the workers of a server, replaces and ends them. Its methods `init_processes`, `keep_subprocess_alive` "
        "and `terminate_all` are extended, the ends of its pipes, `processes[i].child_conn`, closed, and exit code "
        "`config.STARTUP_FAILURE` keeps it from replacing a worker. Its command takes the name of an application only.",
        since="uvicorn 0.52",
    ),
    # Others
    Private(
        "huggingface_hub",
        "utils._http._GLOBAL_CLIENT_FACTORY",
        "the factory of clients in use, with `_GLOBAL_CLIENT`, the client, and `_CLIENT_LOCK`, which guards both: some "
        "requests have no limit for silence. `set_client_factory` does not tell which was there, and closes a "
        "client that others may be in the middle of a request with.",
        since="huggingface_hub 2.4",
    ),
    Private(
        "torch",
        "ops.quantized.linear_dynamic_fp16",
        "with `linear_prepack_fp16`: multiplies float32 with weights stored in float16. Public functions would "
        "round the other factor, too. Without it the weights are multiplied in float32.",
    ),
    Private(
        "torch",
        "cpu._is_amx_tile_supported",
        "whether this processor has units for bfloat16, so that training uses them; there is no public function.",
    ),
    Private(
        "huggingface_hub",
        "log lines",
        "its messages about a failed try and the wait before the next, which users see in one line; and "
        '"Consistency check failed", the only sign of a download of the wrong length.',
        since="huggingface_hub 2.4",
    ),
    Private(
        "huggingface_hub",
        "repocard.REGEX_YAML_BLOCK",
        "how the metadata of a card is found, and `utils.yaml_dump` how it is written: a card stays as it was.",
        since="huggingface_hub 2.4",
    ),
    Private(
        "huggingface_hub",
        "HfApi._validate_yaml",
        "sends a card to the endpoint `/api/validate-yaml`, whose answer lists what is wrong with it; the error that "
        "`create_commit` raises holds the list as text only. Never called here: the endpoint is told by its address.",
        since="huggingface_hub 2.4",
    ),
    Private(
        "huggingface_hub",
        "file_download.repo_folder_name",
        "the folder of a repository in the cache, and `refs/` in it, where the commit of a branch is noted: a layout "
        "that the documentation describes and that a download of several files writes to.",
        since="huggingface_hub 2.4",
    ),
    Private(
        "gradio",
        "EventData._data",
        "what a page's own script sends along with an event; by name gradio hands out the events' own fields alone.",
    ),
    Private(
        "re",
        "_parser",
        "reads a pattern exactly as `re.compile` does. `sre_parse`, which it was before, is deprecated.",
        since="Python 3.11",
    ),
    Private(
        "re",
        "_compiler.compile",
        "compiles one node of a parsed pattern, to try letters on.",
        since="Python 3.11",
    ),
)
