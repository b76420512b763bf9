"""Under which name the bytes of an input are known."""

from __future__ import annotations

import pytest

from videoqa_worker.sources import remove_signature

SIGNED = "X-Amz-Date=20261128T080000Z&X-Amz-Credential=k&X-Amz-Signature=s"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://ann:hush@h/v.mp4#t=5", "https://h/v.mp4"),
        ("https://h/video?id=7&part=", "https://h/video?id=7&part="),
        (f"https://h/v.mp4?{SIGNED}", "https://h/v.mp4"),
        (f"https://h/v.mp4?versionId=3&{SIGNED}", "https://h/v.mp4?versionId=3"),
        ("https://h/v.mp4?Expires=9&Signature=s&Key-Pair-Id=k&q=hd", "https://h/v.mp4?q=hd"),
        (
            "https://h/v.mp4?sv=2&st=1&se=9&sr=b&sp=r&sig=s%3D&versionid=3",
            "https://h/v.mp4?versionid=3",
        ),
        (
            "https://h/v.mp4?OSSAccessKeyId=k&Expires=9&Signature=s&security-token=t&versionId=3",
            "https://h/v.mp4?versionId=3",
        ),
        (
            "https://h/v.mp4?x-oss-signature-version=OSS4-HMAC-SHA256&x-oss-credential=k%2F1&x-oss-date=1"
            "&x-oss-expires=9&x-oss-additional-headers=host&x-oss-security-token=t&x-oss-signature=s",
            "https://h/v.mp4",
        ),
        ("https://h/v.mp4?x-oss-process=p&x-oss-signature=s", "https://h/v.mp4?x-oss-process=p"),
        (
            "https://h/v.mp4?q-sign-algorithm=sha1&q-ak=k&q-sign-time=1;2&q-key-time=1;2&q-header-list=host"
            "&q-url-param-list=&q-signature=s&x-cos-security-token=t&versionId=3",
            "https://h/v.mp4?versionId=3",
        ),
        ("https://h/video?st=1&sig=2", "https://h/video?st=1&sig=2"),
        ("s3://b/k.mp4?versionId=3", "s3://b/k.mp4"),
    ],
)
def test_an_etag_is_of_the_url_with_all_of_its_query_but_the_signature(url: str, name: str) -> None:
    assert remove_signature(url) == name
