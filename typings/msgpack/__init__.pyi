from typing import Any

def packb(o: Any, *, use_bin_type: bool = ..., default: Any = ...) -> bytes: ...
def unpackb(
    packed: bytes | bytearray | memoryview,
    *,
    raw: bool = ...,
    strict_map_key: bool = ...,
    use_list: bool = ...,
) -> Any: ...

class UnpackException(Exception): ...
