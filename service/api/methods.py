"""The methods that DPPO Lens knows."""

from __future__ import annotations

from fastapi import APIRouter

from service.schemas.methods import MethodOut, all_methods

__all__ = ["router"]

router = APIRouter(tags=["methods"])


@router.get("/methods")
def list_methods() -> list[MethodOut]:
    """Every registered method with its rule, source, status, defaults and framework variants."""
    return all_methods()
