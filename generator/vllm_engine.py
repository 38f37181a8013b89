"""vLLM's engine in this process, with no server between: ``AsyncLLM``, which keeps its workers in processes.

``vllm`` is no dependency of Ragstone: who uses this kind installs the build for the machine's accelerator.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final
from uuid import uuid4

from jinja2 import TemplateError
from pydantic import Field
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import GracefulHTTPError, VLLMClientError, VLLMError
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM

from generator.base import Generator, Limits
from generator.chat_generator import ChatGenerator, ChatOptions, prompt_builder
from generator.chat_model import BLOCK_SIZE, CACHE_TOKENS, Begun, Chat, ChatModel, Chunk, Served, TokenUsage
from generator.options import parse_options
from ragstone.answers import TokenLogprob
from ragstone.errors import BackendUnavailable, InvalidArgument, Overloaded

_INLINE_CHARS: Final = 20_000
"""Up to so many characters are counted on the event loop: some 5 ms."""
_RETRY_AFTER_S: Final = 1.0
_FINISHED: Final = {"stop": "stop", "length": "length", "repetition": "length"}
"""Other ends are of texts that were broken off."""


class Options(ChatOptions, frozen=True, extra="forbid"):
    """Options of the ``vllm_engine`` generator."""

    model: str = Field(min_length=1, max_length=500)
    """A hub id, or a folder."""
    engine: Mapping[str, Any] = Field(default_factory=dict)
    """vLLM's engine arguments, as ``max_model_len`` or ``gpu_memory_utilization``."""
    extra: Mapping[str, Any] = Field(default_factory=dict)
    """Sampling parameters of every generation, as ``top_p``."""


async def open_generator(options: Mapping[str, Any]) -> Generator:
    """Load the model: seconds to minutes.

    Raises InvalidArgument for options that vLLM or Ragstone does not know, BackendUnavailable when the
    engine does not start.
    """
    parsed = parse_options(Options, options)
    builder = await asyncio.to_thread(prompt_builder, parsed)
    return ChatGenerator([await asyncio.to_thread(_load, parsed)], parsed, builder)


def _load(options: Options) -> ChatModel:
    # A fork of a server with threads may deadlock, and would hold its locks on the data directory.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # noqa: TID251 - vLLM reads it there
    if options.extra.get("n", 1) != 1:
        raise InvalidArgument.at("options.extra", "n: an answer is one text")
    try:
        SamplingParams(**options.extra)
    except (TypeError, ValueError, VLLMError) as exc:
        raise InvalidArgument.at("options.extra", str(exc)) from exc
    try:
        arguments = AsyncEngineArgs(model=options.model, **options.engine)
    except (TypeError, ValueError) as exc:
        raise InvalidArgument.at("options.engine", str(exc)) from exc
    try:
        engine = AsyncLLM.from_engine_args(arguments)
    except (ValueError, OSError, VLLMError) as exc:
        raise InvalidArgument.at("options", f"vLLM does not take {options.model}: {exc}") from exc
    except RuntimeError as exc:
        raise BackendUnavailable(f"vLLM does not start: {exc}") from exc
    return EngineModel(engine, options.model, options.extra)


class EngineModel:
    """A ``ChatModel`` over an engine that is its own."""

    def __init__(self, engine: AsyncLLM, name: str, extra: Mapping[str, Any]) -> None:
        self.url = f"vllm-engine:{name}"
        self.in_flight = 0
        self._engine = engine
        self._name = name
        self._extra = extra
        self._tokenizer: Any = engine.get_tokenizer()

    @property
    def down(self) -> bool:
        """Whether the engine has died; it does not come back."""
        return bool(self._engine.errored)

    async def served(self) -> Served:
        """The model. Raises BackendUnavailable once the engine has died."""
        if self.down:
            raise BackendUnavailable(f"the engine of {self._name} has died: {self._engine.dead_error}")
        return Served(self._name, self._engine.model_config.max_model_len, is_vllm=True)

    async def cache(self, served: Served) -> tuple[int, int]:
        """As the engine planned it when it started."""
        config = self._engine.vllm_config.cache_config
        if not config.num_gpu_blocks:
            return CACHE_TOKENS, BLOCK_SIZE
        return config.num_gpu_blocks * config.block_size, config.block_size

    async def count(self, texts: Sequence[str]) -> Sequence[int]:
        """The tokens of each of ``texts``, without those that begin or end a sequence."""
        if sum(map(len, texts)) <= _INLINE_CHARS:
            return self._count(texts)
        return await asyncio.to_thread(self._count, texts)

    def _count(self, texts: Sequence[str]) -> Sequence[int]:
        return [len(self._tokenizer.encode(text, add_special_tokens=False)) for text in texts]

    async def begin(self, chat: Chat) -> Begun:
        """The completion of ``chat``, once its first piece of text is there.

        Raises InvalidArgument for what the model does not take, BackendUnavailable.
        """
        self.in_flight += 1
        chunks = self._chunks(chat)
        try:
            async for chunk in chunks:
                if chunk.text or chunk.logprobs or chunk.finish_reason:
                    return Begun(chunk, chunks, chunks.aclose)
            raise BackendUnavailable(f"{self._name} answered nothing")
        except BaseException:
            self.in_flight -= 1
            await chunks.aclose()
            raise

    async def end(self, begun: Begun) -> None:
        """Stop what is still generated."""
        self.in_flight -= 1
        await begun.close()

    async def close(self) -> None:
        """End the engine's processes."""
        await asyncio.to_thread(self._engine.shutdown)

    async def _chunks(self, chat: Chat) -> AsyncGenerator[Chunk, None]:
        written = 0
        try:
            outputs = self._engine.generate(
                await self._prompt(chat), self._parameters(chat.limits), uuid4().hex, priority=chat.priority
            )
            # Closing it is what stops the generation in the engine.
            async with aclosing(outputs):
                async for output in outputs:
                    completion = output.outputs[0]
                    written += len(completion.token_ids)
                    yield Chunk(
                        text=completion.text,
                        logprobs=_logprobs(completion) if chat.limits.logprobs else (),
                        finish_reason=self._finish(completion.finish_reason),
                        usage=TokenUsage(
                            prompt_tokens=len(output.prompt_token_ids or ()),
                            cached_tokens=output.num_cached_tokens or 0,
                            completion_tokens=written,
                        ),
                    )
        except (ValueError, VLLMClientError, TemplateError) as exc:
            raise InvalidArgument(f"{self._name} refuses the request: {exc}") from exc
        except GracefulHTTPError as exc:
            raise Overloaded(f"{self._name} is full: {exc}", retry_after_s=_RETRY_AFTER_S) from exc
        except VLLMError as exc:
            raise BackendUnavailable(f"the engine of {self._name} failed: {exc.__cause__ or exc}") from exc

    def _finish(self, reason: str | None) -> str | None:
        """Raises BackendUnavailable for a text that was broken off."""
        if reason is None or reason in _FINISHED:
            return None if reason is None else _FINISHED[reason]
        raise BackendUnavailable(f"the engine of {self._name} broke the answer off: {reason}")

    async def _prompt(self, chat: Chat) -> dict[str, Any]:
        render = partial(
            self._tokenizer.apply_chat_template,
            [{"role": message.role, "content": message.content} for message in chat.messages],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=False,
        )
        short = sum(len(message.content) for message in chat.messages) <= _INLINE_CHARS
        prompt: dict[str, Any] = {"prompt_token_ids": render() if short else await asyncio.to_thread(render)}
        return {**prompt, "cache_salt": chat.cache_salt} if chat.cache_salt else prompt

    def _parameters(self, limits: Limits) -> SamplingParams:
        asked: dict[str, Any] = {
            **self._extra,
            "max_tokens": limits.max_tokens,
            "temperature": limits.temperature,
            "output_kind": RequestOutputKind.DELTA,
        }
        if limits.seed is not None:
            asked["seed"] = limits.seed
        if limits.stop:
            asked["stop"] = list(limits.stop)
        if limits.logprobs:
            asked["logprobs"] = 0
        if limits.json_schema is not None:
            asked["structured_outputs"] = StructuredOutputsParams(json=dict(limits.json_schema))
        return SamplingParams(**asked)


def _logprobs(completion: Any) -> list[TokenLogprob]:
    """Of the tokens that were chosen."""
    told = zip(completion.token_ids, completion.logprobs or (), strict=False)
    chosen = [at[token] for token, at in told if token in at]
    return [TokenLogprob(token=one.decoded_token or "", logprob=float(one.logprob)) for one in chosen]
