"""The flow of a store's own pictures, for benchmarks that have no film to compute it from."""

from __future__ import annotations

import zlib

import numpy as np

from slicfast.data.flow import CONTENT, Components, FlowEncoder, flow_folder
from slicfast.data.store import ClipStore, StoreSettings
from slicfast.data.stores.writer import StoreWriter, VideoRecord


def add_flow(store: ClipStore, components: Components) -> None:
    """Store the flow of every video of a JPEG store inside it, as `prepare` would from film."""
    import cv2

    side, quality = store.settings.short_side, store.settings.quality
    settings = StoreSettings(short_side=side, quality=quality, content=CONTENT[components])
    with StoreWriter(flow_folder(store.path, components), settings) as writer:
        for row, name in enumerate(store.ids()):
            encoder = FlowEncoder(settings)
            pictures = store.frames(row, range(int(store.num_frames[row])))
            decoded = [np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), dtype=np.uint8) for jpeg in pictures]
            fields = [encoder.encode(picture_HWC) for picture_HWC in decoded][1:]
            width, height, fps = int(store.width[row]), int(store.height[row]), float(store.fps[row])
            sizes, crcs = [len(jpeg) for jpeg in fields], [zlib.crc32(jpeg) for jpeg in fields]
            writer.add(VideoRecord(name, None, fps, width, height, sizes, crcs), b"".join(fields))
        writer.finish(dict.fromkeys(store.ids()), {})
