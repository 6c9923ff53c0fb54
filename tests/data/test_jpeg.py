import cv2
import numpy as np
import pytest
from small_data import encode_pictures, smooth_video

from slicfast.data.decoding.jpeg_header import HeaderCheck, parse_header

WIDTH, HEIGHT = 50, 36


def picture(quality: int = 90) -> np.ndarray:
    video = smooth_video(np.random.default_rng(), 1, WIDTH, HEIGHT)
    return np.frombuffer(encode_pictures(video, quality)[0], np.uint8)


def encoded(image: np.ndarray, *options: int) -> np.ndarray:
    return cv2.imencode(".jpg", image, options)[1].reshape(-1)


def test_headers_of_encoded_pictures_are_accepted():
    check = HeaderCheck()
    image = np.random.default_rng().integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for data in (
        picture(),
        picture(40),
        encoded(image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encoded(image, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        encoded(image[..., 0]),
    ):
        assert check.fault(data, WIDTH, HEIGHT) is None
        assert check.fault(data, WIDTH, HEIGHT) is None  # known by now
        assert parse_header(data.tobytes())[1] == (WIDTH, HEIGHT)


def test_a_header_longer_than_usual_is_accepted():
    data = picture()
    comment = b"\xff\xfe" + (5002).to_bytes(2, "big") + b"x" * 5000
    long = np.frombuffer(data[:2].tobytes() + comment + data[2:].tobytes(), np.uint8)
    check = HeaderCheck()
    assert check.fault(long, WIDTH, HEIGHT) is None
    assert check.fault(long, WIDTH, HEIGHT) is None


def test_another_size_than_the_stores_is_a_fault():
    assert "50 x 36 pixels where the store says 36 x 50" in str(HeaderCheck().fault(picture(), HEIGHT, WIDTH))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:0],
        lambda data: data[:1],
        lambda data: data[:300],  # inside the tables
        lambda data: np.zeros_like(data),
        lambda data: data[2:],
        lambda data: np.concatenate([data[:2], data[40:]]),
        lambda data: np.random.default_rng().integers(0, 255, len(data), dtype=np.uint8),  # without 0xFF
    ],
)
def test_a_broken_header_is_a_fault(spoil):
    check = HeaderCheck()
    assert check.fault(picture(), WIDTH, HEIGHT) is None
    assert check.fault(spoil(picture()), WIDTH, HEIGHT) is not None


def test_any_change_of_a_known_header_is_looked_at_again():
    check, sound = HeaderCheck(), picture()
    assert check.fault(sound, WIDTH, HEIGHT) is None
    start_of_frame = sound.tobytes().index(b"\xff\xc0")
    for offset, value in ((5, 1), (7, 1), (9, 7), (1, 0xC9), (3, 0)):  # height, width, parts, coding, length
        data = sound.copy()
        data[start_of_frame + offset] = value
        assert check.fault(data, WIDTH, HEIGHT) is not None


def test_what_is_known_stays_bounded(monkeypatch):
    monkeypatch.setattr("slicfast.data.decoding.jpeg_header._MAX_KNOWN", 3)
    check = HeaderCheck()
    for quality in range(20, 80, 4):
        assert check.fault(picture(quality), WIDTH, HEIGHT) is None
        assert len(check._known) <= 3
