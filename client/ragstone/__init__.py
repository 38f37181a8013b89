"""The Python client of Ragstone, a retrieval service for RAG.

from ragstone import Client, Document

with Client("127.0.0.1:50051") as client:
    client.create_collection("docs")
    client.upsert("docs", [Document(id="1", text="...")])
    for hit in client.search("docs", "how do I ...?").hits:
        print(hit.score, hit.document_id, hit.text)
"""

from ragstone import errors
from ragstone.answers import (
    AnswerSpan,
    Citation,
    Done,
    FinishReason,
    Generation,
    Role,
    Standalone,
    TextDelta,
    TokenLogprob,
    Turn,
    Usage,
    UsageRecord,
)
from ragstone.calls import Embeddings, Health
from ragstone.channel import TLS
from ragstone.client import AsyncClient
from ragstone.errors import RagstoneError
from ragstone.sync import Client
from ragstone.types import (
    AnswerEvent,
    Chunk,
    Collection,
    Comparison,
    Contexts,
    Document,
    Fusion,
    Gate,
    GoldenQuery,
    Hit,
    Interval,
    Latency,
    LegScore,
    MeasuredVersion,
    Metadata,
    MetadataValue,
    MissingText,
    MissingTexts,
    Mode,
    ParkedText,
    Progress,
    Query,
    QueryAdapter,
    QuerySource,
    RebuildPlan,
    Recipe,
    Rerank,
    RerankScores,
    SearchResult,
    ServerInfo,
    Traffic,
    Truncation,
    VectorLike,
    Version,
    VersionEvent,
    Wait,
    WriteResult,
)

__version__ = "0.1.0"

__all__ = [
    "TLS",
    "AnswerEvent",
    "AnswerSpan",
    "AsyncClient",
    "Chunk",
    "Citation",
    "Client",
    "Collection",
    "Comparison",
    "Contexts",
    "Document",
    "Done",
    "Embeddings",
    "FinishReason",
    "Fusion",
    "Gate",
    "Generation",
    "GoldenQuery",
    "Health",
    "Hit",
    "Interval",
    "Latency",
    "LegScore",
    "MeasuredVersion",
    "Metadata",
    "MetadataValue",
    "MissingText",
    "MissingTexts",
    "Mode",
    "ParkedText",
    "Progress",
    "Query",
    "QueryAdapter",
    "QuerySource",
    "RagstoneError",
    "RebuildPlan",
    "Recipe",
    "Rerank",
    "RerankScores",
    "Role",
    "SearchResult",
    "ServerInfo",
    "Standalone",
    "TextDelta",
    "TokenLogprob",
    "Traffic",
    "Truncation",
    "Turn",
    "Usage",
    "UsageRecord",
    "VectorLike",
    "Version",
    "VersionEvent",
    "Wait",
    "WriteResult",
    "errors",
]
