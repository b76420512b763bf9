"""Settings of webhooks, which are the gateway's."""

from __future__ import annotations

from pydantic import Field, field_validator

from videoqa.net import parse_networks
from videoqa.settings import Settings

__all__ = ["WebhookSettings"]


class WebhookSettings(Settings):
    """Settings of the part of a gateway that calls webhooks."""

    webhook_networks: str = Field(
        default="",
        description="private networks and addresses in which receivers of webhooks may be, separated by commas, as "
        "10.0.0.0/8; only into these a webhook may go by http://; empty: public addresses by https:// only",
    )
    webhook_timeout_s: float = Field(
        default=15.0,
        gt=0,
        le=300,
        description="longest time of a webhook's call, from the name to the status of the answer",
    )
    webhook_retry_delays_s: str = Field(
        default="5,300,1800,7200,18000,36000,50400,72000,86400",
        pattern=r"^[0-9.]+(,[0-9.]+)*$",
        description="times between the attempts of a webhook, each a fifth more or less; ten attempts in three days, "
        "so that a receiver that breaks on a Friday can be mended on the Monday",
    )
    webhook_calls: int = Field(
        default=200,
        ge=0,
        le=10_000,
        description="webhooks that a gateway calls at the same time, at most half of them of receivers that are new "
        "or failed the last time; 0: this gateway calls none",
    )
    webhook_calls_per_receiver: int = Field(
        default=4,
        ge=1,
        le=1000,
        description="calls of one tenant's receiver at the same time, of all gateways together; one until a call "
        "has succeeded",
    )

    @field_validator("webhook_networks")
    @classmethod
    def _check_networks(cls, text: str) -> str:
        parse_networks(text)
        return text

    @field_validator("webhook_retry_delays_s")
    @classmethod
    def _check_delays(cls, text: str) -> str:
        if not all(0 < float(one) <= 7 * 86_400 for one in text.split(",")):
            raise ValueError("expected times above 0 and up to 7 days, separated by commas")
        return text
