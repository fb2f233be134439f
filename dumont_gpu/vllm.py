"""A plugin of vLLM: `--load-format dumont` streams a model's weights out of a snapshot. Not yet run with vLLM itself.

    vllm serve MODEL --load-format dumont \\
        --model-loader-extra-config '{"snapshot": "s3://bucket/workspace.dumont", "path": "models/llama/*.safetensors"}'

vLLM finds `register` by the entry point `vllm.general_plugins`. MODEL has what vLLM reads besides weights: the
configuration and the tokenizer.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from contextlib import closing
from typing import Any, Final

from dumont_gpu.errors import UsageError
from dumont_gpu.format.paths import shown
from dumont_gpu.jobs import arguments as take
from dumont_gpu.loading.calls import open as open_tensors
from dumont_gpu.loading.tensor_files import AHEAD, TensorFiles

try:
    from vllm.model_executor.model_loader import BaseModelLoader, register_model_loader
except ImportError as error:
    raise ImportError(f"dumont_gpu.vllm is a plugin of vLLM, which cannot be imported here: {error}") from None

LOAD_FORMAT: Final = "dumont"
_DEFAULT_PATH: Final = "*.safetensors"
_OF_OPEN: Final = ("verify", "expect", "jobs", "memory", "patience", "connections", "limit_rate")
_KEYS: Final = ("snapshot", "path", "ahead", "strict", *_OF_OPEN)
_NAMED: Final = 5  # names in a message


class DumontModelLoader(BaseModelLoader):  # type: ignore[misc]  # vLLM is not there to be checked
    """Gives a model its weights by a prefetch: at most `ahead` bytes of tensors wait in memory, and no file is written.

    The keys of `--model-loader-extra-config`:
        snapshot: a path or an address, perhaps with `:path` of a directory in it.
        path: files in the snapshot, a pattern or a list of them; `*.safetensors` if not given.
        ahead: bytes of tensors that are loaded before the model takes them: 512 MiB if not given; or "1GiB".
        strict: whether the files must have every weight of a model that is not quantised; true if not given.
        verify, expect, jobs, memory, patience, connections, limit_rate: as of `dumont_gpu.open`.

    Tensors come in the order in which they lie in the snapshot, and in memory of the host: the model copies them to
    its device. Each process of a parallel run reads all of them.

    Raises:
        UsageError: a key is unknown, or `snapshot` is missing.
    """

    def __init__(self, load_config: Any) -> None:
        super().__init__(load_config)
        given = load_config.model_loader_extra_config or {}
        if not isinstance(given, dict) or not given.get("snapshot"):
            raise UsageError(
                f"--load-format {LOAD_FORMAT} needs --model-loader-extra-config "
                '\'{"snapshot": "…", "path": "*.safetensors"}\''
            )
        if unknown := [key for key in given if key not in _KEYS]:
            raise UsageError(f"--model-loader-extra-config: unknown: {_listed(unknown)}; known: {', '.join(_KEYS)}")
        self._snapshot, self._paths = given["snapshot"], take.paths("path", given.get("path", _DEFAULT_PATH))
        self._ahead = take.size("ahead", given.get("ahead", AHEAD))
        self._strict = take.flag("strict", given.get("strict", True))
        self._options = {key: given[key] for key in _OF_OPEN if key in given}

    def download_model(self, model_config: Any) -> None:
        """Finds out whether the snapshot and the files are there; fetches no tensor. Raises as `dumont_gpu.open`."""
        self._open().close()

    def load_weights(self, model: Any, model_config: Any) -> None:
        """Loads weights into a model that is there.

        Raises:
            UsageError: strict, and the files lack weights of the model.
            DumontError: as `dumont_gpu.open` and `TensorFiles.get_tensor`.
        """
        with self._open() as tensors, closing(self._weights(tensors)) as weights:
            loaded = model.load_weights(weights)
        if self._strict and loaded is not None and model_config.quantization is None:
            self._check_complete(model, loaded)

    def _open(self) -> TensorFiles:
        return open_tensors(self._snapshot, self._paths, framework="pt", **self._options)

    def _weights(self, tensors: TensorFiles) -> Generator[tuple[str, Any], None, None]:
        with tensors.prefetch(limit=self._ahead) as ready:
            for name in ready.names():
                yield name, ready.take(name)

    def _check_complete(self, model: Any, loaded: Collection[str]) -> None:
        """Weights that nobody loaded would be whatever the memory held."""
        if missing := [name for name, _ in model.named_parameters() if name not in loaded]:
            raise UsageError(f"{_listed(self._paths)}: no tensor for {_listed(missing)}")


def register() -> None:
    """Makes `--load-format dumont` known; vLLM calls it in each of its processes, perhaps more than once."""
    register_model_loader(LOAD_FORMAT)(DumontModelLoader)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(map(shown, names[:_NAMED]))}{more}"
