"""The formats of videos: the one list by which workers open files, and by which folders and prefixes are searched."""

from __future__ import annotations

__all__ = ["VIDEO_DEMUXERS", "VIDEO_SUFFIXES"]

_FORMATS: dict[str, tuple[str, ...]] = {
    "mov,mp4,m4a,3gp,3g2,mj2": (".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v"),
    "matroska,webm": (".mkv", ".webm", ".mk3d"),
    "avi": (".avi", ".divx"),
    "mpegts": (".ts", ".m2ts", ".mts", ".m2t", ".trp"),
    "mpeg": (".mpg", ".mpeg", ".vob", ".m2p"),
    "mpegvideo": (".m1v", ".m2v"),
    "h264": (".h264", ".264"),
    "hevc": (".hevc", ".h265", ".265"),
    "ogg": (".ogv", ".ogm"),
    "flv": (".flv",),
    "gif": (),
    "asf": (".wmv", ".asf"),
    "mxf": (".mxf",),
    "dv": (".dv",),
    "ivf": (".ivf",),
    "obu": (".obu",),
    "wtv": (".wtv",),
    "rm": (".rm", ".rmvb"),
    "nut": (".nut",),
    "yuv4mpegpipe": (".y4m",),
    "m4v": (),
    "mjpeg": (".mjpeg", ".mjpg"),
    "apng": (),
    "roq": (".roq",),
    "film_cpk": (".cpk",),
    "smjpeg": (),
    "swf": (),
}
"""FFmpeg's demuxers that tests cover, and the suffixes of their files; some are found by their bytes alone.

None of them opens a second file or URL, as concat, hls, dash, image2 and mlv do.
"""
VIDEO_DEMUXERS = ",".join(_FORMATS)
VIDEO_SUFFIXES = tuple(suffix for suffixes in _FORMATS.values() for suffix in suffixes)
"""Suffixes of the files that are taken from folders, globs and prefixes."""
