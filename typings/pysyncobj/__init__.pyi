from .config import SyncObjConf as SyncObjConf
from .node import Node as Node
from .syncobj import SyncObj as SyncObj
from .transport import Transport as Transport
