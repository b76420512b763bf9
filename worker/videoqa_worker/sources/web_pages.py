"""Web pages, playlists and error texts in place of a video: told where the address is known, with the next step.

The first bytes decide, since servers call a video `text/html` too. What the bytes alone tell is said
when the file is opened; here are the words that need the address or the content type.
"""

from __future__ import annotations

from urllib.parse import SplitResult

from videoqa.contract import split_url
from videoqa.errors import NotAVideo
from videoqa.redaction import redact_url
from videoqa_worker.frames import identify_head

__all__ = ["PAGE_HEAD_BYTES", "find_page"]

PAGE_HEAD_BYTES = 4096
_FILE_ADVICE = "download the video as its terms allow, store it, and send the address of the file"
_SITES = {
    "youtube.com": ("YouTube", _FILE_ADVICE),
    "youtu.be": ("YouTube", _FILE_ADVICE),
    "youtube-nocookie.com": ("YouTube", _FILE_ADVICE),
    "vimeo.com": ("Vimeo", _FILE_ADVICE),
    "dailymotion.com": ("Dailymotion", _FILE_ADVICE),
    "twitch.tv": ("Twitch", _FILE_ADVICE),
    "tiktok.com": ("TikTok", _FILE_ADVICE),
    "bilibili.com": ("Bilibili", _FILE_ADVICE),
    "instagram.com": ("Instagram", _FILE_ADVICE),
    "facebook.com": ("Facebook", _FILE_ADVICE),
    "x.com": ("X", _FILE_ADVICE),
    "twitter.com": ("X", _FILE_ADVICE),
    "dropbox.com": ("Dropbox", "replace dl=0 by dl=1 in the link, which then leads to the file"),
    "drive.google.com": (
        "Google Drive",
        "share the file with everybody and use https://drive.usercontent.google.com/download?id=ID&export=download; "
        "files that Google asks to confirm have to be stored elsewhere",
    ),
    "docs.google.com": ("Google Drive", "use a link that downloads the file"),
    "drive.usercontent.google.com": (
        "Google Drive",
        "add &confirm=t to the link, share the file with everybody, or store it elsewhere",
    ),
    "photos.google.com": ("Google Photos", _FILE_ADVICE),
    "onedrive.live.com": ("OneDrive", "use the link that downloads the file (download=1)"),
    "1drv.ms": ("OneDrive", "use the link that downloads the file (download=1)"),
    "sharepoint.com": ("SharePoint", "add download=1 to the link, and share the file with everybody"),
    "box.com": ("Box", "use the shared file's direct link"),
    "icloud.com": ("iCloud", _FILE_ADVICE),
    "github.com": ("GitHub", "use the file's raw.githubusercontent.com address"),
    "huggingface.co": ("Hugging Face", "replace /blob/ by /resolve/ in the link"),
}  # fmt: skip
_PLAYLISTS = {
    "application/vnd.apple.mpegurl": "an HLS playlist",
    "application/x-mpegurl": "an HLS playlist",
    "application/mpegurl": "an HLS playlist",
    "audio/mpegurl": "an HLS playlist",
    "audio/x-mpegurl": "an HLS playlist",
    "application/dash+xml": "a DASH manifest",
    "application/vnd.ms-sstr+xml": "a Smooth Streaming manifest",
}
_PAGES = ("text/html", "application/xhtml+xml")


def find_page(url: str, final_url: str, content_type: str, head: bytes) -> NotAVideo | None:
    """Returns the error for what is no media, if its address or content type tells more than its bytes do.

    Arguments:
        final_url: the address after all redirects.
        content_type: the header field of the response.
        head: the first `PAGE_HEAD_BYTES` bytes.
    """
    found = identify_head(head)
    if found.kind in ("video", "image", "audio"):
        return None
    shown, kind = redact_url(url), content_type.partition(";")[0].strip().lower()
    is_plain_text = found.text in ("text", "an unknown format")
    if kind in _PLAYLISTS and (found.kind == "playlist" or is_plain_text):
        return NotAVideo(
            f"{shown} is {_PLAYLISTS[kind]}, which names the parts of a video; expected the file itself: send the "
            "address of one file, or join the parts with ffmpeg -i ADDRESS -c copy video.mp4"
        )
    if found.text == "JSON":
        return NotAVideo(
            f"{shown} is JSON, perhaps an error message of its server; expected the file itself: open the URL to see "
            "what it says"
        )
    if found.text.startswith("a web page") or (kind in _PAGES and is_plain_text):
        return _explain_page(shown, url, final_url)
    return None


def _explain_page(shown: str, url: str, final_url: str) -> NotAVideo:
    first, last = split_url(url), split_url(final_url)
    for parts in (first, last):
        if site := _find_site(parts.hostname or ""):
            name, advice = site
            return NotAVideo(f"{shown} is a web page of {name}, expected the file itself; {advice}")
    if _leads_elsewhere(first, last):
        return NotAVideo(
            f"{shown} redirects to {redact_url(final_url)[:200]}, a web page, perhaps one to log in; expected the "
            "file itself: send an address that needs no login, such as a presigned URL"
        )
    return NotAVideo(
        f"{shown} is a web page, expected the file itself; open it in a browser, and send the address of the file "
        "that it plays, or of one that needs no login"
    )


def _find_site(host: str) -> tuple[str, str] | None:
    """Returns a site's name and advice by its host or a domain above."""
    labels = host.lower().rstrip(".").split(".")[-5:]
    names = (".".join(labels[at:]) for at in range(len(labels)))
    return next((_SITES[name] for name in names if name in _SITES), None)


def _leads_elsewhere(first: SplitResult, last: SplitResult) -> bool:
    return (first.hostname, first.path) != (last.hostname, last.path)
