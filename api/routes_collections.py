"""`/v1/collections`: the collections, their documents, uploads."""

import asyncio
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from api.asking import Watch, await_watched
from api.documentation import body, errors
from api.jobs import UPLOADED, Item, Job, json_document
from api.schemas import (
    CollectionBody,
    CollectionsView,
    CollectionView,
    DocumentBody,
    DocumentInfoView,
    DocumentsBody,
    DocumentsView,
    DocumentView,
    JobView,
    NamedDocumentBody,
    PlaceView,
)
from api.service import Service, key_of, service_of
from corpus.document import Document
from corpus.errors import CollectionExistsError, DocumentNotFoundError, ForbiddenError, InputError
from corpus.files import format_of
from index.collection import Collection

router = APIRouter(prefix="/v1/collections", tags=["collections"])

Name = Annotated[str, Path(max_length=100, description="The collection.", examples=["default"])]
Id = Annotated[
    str, Path(max_length=2000, description="The document's id; may contain '/'.", examples=["memo.docx"])
]
_INLINE = {"pdf": "application/pdf", "txt": "text/plain; charset=utf-8", "md": "text/plain; charset=utf-8"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PDF_POLICY = "default-src 'none'; style-src 'unsafe-inline'; object-src 'self'; frame-ancestors 'self'"


def view_of(collection: Collection) -> CollectionView:
    """A collection with its sizes."""
    stats = collection.stats()
    return CollectionView(
        name=collection.name,
        documents=stats.documents,
        chunks=stats.chunks,
        characters=stats.characters,
        languages=stats.languages,
        disk_bytes=stats.disk_bytes,
        generation=collection.generation(),
        embedder=collection.manifest.embedder.id,
        created_at=collection.manifest.created_at,  # type: ignore[arg-type]
    )


@router.get("", responses=errors(), summary="The collections")
def list_collections(request: Request) -> CollectionsView:
    """Those that the key may see, by name."""
    service, key = service_of(request), key_of(request)
    views = []
    for name in filter(key.sees, service.running.shelf.names()):
        with service.collection(name, key) as collection:
            views.append(view_of(collection))
    return CollectionsView(collections=views)


@router.post("", status_code=201, responses=errors(400, 409, 413, 507), summary="Make a collection")
def create_collection(body: CollectionBody, request: Request) -> CollectionView:
    """Empty, and bound to the service's embedding model."""
    service, key = service_of(request), key_of(request)
    if not key.sees(body.name):
        raise ForbiddenError("your key is limited to other collections; make one that it names")
    service.running.shelf.create(body.name)
    with service.collection(body.name, key) as collection:
        return view_of(collection)


@router.get("/{name}", responses=errors(404, 409), summary="One collection")
def get_collection(name: Name, request: Request) -> CollectionView:
    """How much is in it."""
    with service_of(request).collection(name, key_of(request)) as collection:
        return view_of(collection)


@router.put(
    "/{name}",
    responses={201: {"description": "Made.", "model": CollectionView}, **errors(404, 409, 507)},
    summary="Make a collection unless it is there",
)
def put_collection(name: Name, request: Request, response: Response) -> CollectionView:
    """201 where it was made, 200 where it was there."""
    service, key = service_of(request), key_of(request)
    try:
        service.running.shelf.create(name)
        response.status_code = 201
    except CollectionExistsError:
        response.status_code = 200
    with service.collection(name, key) as collection:
        return view_of(collection)


@router.delete(
    "/{name}", status_code=204, responses=errors(404, 409, 504, 507), summary="Delete a collection"
)
async def delete_collection(name: Name, request: Request) -> Response:
    """With all that is in it; there is no way back but a backup."""
    service = service_of(request)
    running = service.running
    watch = Watch(service.config.deadline_s)
    await await_watched(running.writer.run(lambda: running.shelf.delete(name)), watch)
    return Response(status_code=204)


# Documents


@router.get("/{name}/documents", responses=errors(404, 409), summary="The documents, a page at a time")
def list_documents(
    name: Name,
    request: Request,
    offset: Annotated[int, Query(ge=0, le=2**31, description="How many to pass over.")] = 0,
    limit: Annotated[int, Query(ge=1, le=500, description="How many at most.")] = 50,
    contains: Annotated[str, Query(max_length=200, description="Only with this in the id or title.")] = "",
) -> DocumentsView:
    """In the order of their ids."""
    with service_of(request).collection(name, key_of(request)) as collection:
        infos = collection.documents(offset, limit + 1, contains)
        total = collection.stats().documents
    views = [
        DocumentInfoView(
            id=info.id,
            title=info.title,
            language=info.language,
            source=info.source,
            metadata=info.metadata,
            sha256=info.sha256,
            chunks=info.chunks,
            characters=info.characters,
            pages=info.pages,
            ingested_at=info.ingested_at,  # type: ignore[arg-type]
            has_original=info.origin.startswith(UPLOADED),
        )
        for info in infos[:limit]
    ]
    following = offset + limit if len(infos) > limit else None
    return DocumentsView(documents=views, offset=offset, limit=limit, next_offset=following, total=total)


_UPLOAD = body(
    {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "properties": {
                    "files": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
                },
            }
        },
        "application/json": {"schema": {"$ref": "#/components/schemas/DocumentsBody"}},
    }
)


@router.post(
    "/{name}/documents",
    status_code=202,
    responses=errors(400, 404, 409, 413, 415, 504, 507),
    openapi_extra=_UPLOAD,
    summary="Upload files, or documents as JSON",
)
async def upload(name: Name, request: Request) -> JobView:
    """The job tells each file's fate. A file's name becomes its document's id, and is only ever shown."""
    service, key = service_of(request), key_of(request)
    await asyncio.to_thread(service.check_sees, name, key)
    service.running.writer.check_room()
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        job = await _upload_files(service, name, request)
    elif content_type == "application/json":
        job = await _upload_json(service, name, await request.body())
    else:
        raise HTTPException(415, "send files as multipart/form-data, or documents as application/json")
    return job.view()


async def _upload_files(service: Service, name: str, request: Request) -> Job:
    async with request.form(max_files=service.config.max_upload_files, max_fields=10) as form:
        files = [value for value in form.getlist("files") if isinstance(value, UploadFile)]
        if not files:
            message = "send one file or more in parts called 'files'"
            raise RequestValidationError([{"type": "missing", "loc": ("body", "files"), "msg": message}])
        return await asyncio.to_thread(_spooled, service, name, files)


def _spooled(service: Service, name: str, files: list[UploadFile]) -> Job:
    spool = service.running.spool
    folder = spool.folder()
    try:
        items = [spool.keep(folder, file.filename or "unnamed", file.file) for file in files]
        return service.running.writer.submit(name, items, folder)
    except BaseException:
        spool.drop(folder)
        raise


async def _upload_json(service: Service, name: str, content: bytes) -> Job:
    def job() -> Job:
        try:
            documents = DocumentsBody.model_validate_json(content).documents
        except ValidationError as error:
            raise _as_request_error(error) from error
        items = [_item(document.id, document) for document in documents]
        return service.running.writer.submit(name, items, None)

    return await asyncio.to_thread(job)


def _as_request_error(error: ValidationError) -> RequestValidationError:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        raise HTTPException(400, f"the body isn't JSON: {found[0]['msg']}") from error
    return RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in found])


def _item(document_id: str, content: DocumentBody) -> Item:
    document = json_document(
        document_id, content.title, content.text, content.language, content.source, dict(content.metadata)
    )
    return Item(name=document_id, size=len(content.text), sha256=document.sha256, document=document)


@router.get("/{name}/documents/{document_id:path}", responses=errors(404, 409), summary="One document")
def get_document(name: Name, document_id: Id, request: Request) -> DocumentView:
    """Its text and what is known of it."""
    with service_of(request).collection(name, key_of(request)) as collection:
        document = _document(collection, document_id)
        found = collection.documents(0, 500, document_id)
    origin = next((info.origin for info in found if info.id == document_id), "")
    return DocumentView(
        id=document.id,
        title=document.title,
        language=document.language,
        text=document.text,
        source=document.source,
        metadata=dict(document.metadata),
        sha256=document.sha256,
        page_starts=list(document.page_starts),
        has_original=origin.startswith(UPLOADED),
    )


def _document(collection: Collection, document_id: str) -> Document:
    """Raises DocumentNotFoundError, also for what can't be an id."""
    try:
        document_id.encode()
    except UnicodeEncodeError as error:
        raise DocumentNotFoundError("there is no such document in this collection") from error
    return collection.document(document_id)


@router.put(
    "/{name}/documents/{document_id:path}",
    status_code=202,
    responses=errors(400, 404, 409, 413, 504),
    summary="Put one document in as JSON",
)
def put_document(name: Name, document_id: Id, body: DocumentBody, request: Request) -> JobView:
    """In place of the one with its id, if there is one."""
    service = service_of(request)
    service.check_sees(name, key_of(request))
    try:
        named = NamedDocumentBody(id=document_id, **body.model_dump())
    except ValidationError as error:
        raise RequestValidationError(
            [{**each, "loc": ("path", "document_id")} for each in error.errors(include_context=False)]
        ) from error
    return service.running.writer.submit(name, [_item(named.id, named)], None).view()


@router.delete(
    "/{name}/documents/{document_id:path}",
    status_code=204,
    responses=errors(404, 409, 504, 507),
    summary="Erase one document",
)
async def delete_document(name: Name, document_id: Id, request: Request) -> Response:
    """From the database and from both indexes."""
    service, key = service_of(request), key_of(request)

    def erase() -> None:
        with service.collection(name, key) as collection:
            if not collection.delete([_document(collection, document_id).id]):
                raise DocumentNotFoundError(f"there is no document {document_id!r} in this collection")

    await asyncio.to_thread(service.check_sees, name, key)
    await await_watched(service.running.writer.run(erase), Watch(service.config.deadline_s))
    return Response(status_code=204)


@router.get(
    "/{name}/texts/{document_id:path}",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors(404, 409)},
    response_class=Response,
    summary="A document's text alone",
)
def get_text(name: Name, document_id: Id, request: Request) -> Response:
    """In UTF-8; offsets count its code points."""
    with service_of(request).collection(name, key_of(request)) as collection:
        text = _document(collection, document_id).text
    return Response(text, media_type="text/plain; charset=utf-8")


@router.get(
    "/{name}/originals/{document_id:path}",
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        **errors(404, 409),
    },
    response_class=Response,
    summary="The uploaded file",
)
def get_original(
    name: Name,
    document_id: Id,
    request: Request,
    disposition: Annotated[
        str, Query(pattern="^(attachment|inline)$", description="Save or show.")
    ] = "attachment",
) -> Response:
    """Byte for byte. Only a PDF and plain text are ever shown in the browser."""
    with service_of(request).collection(name, key_of(request)) as collection:
        original = collection.original(_document(collection, document_id).id)
    shown = _INLINE.get(format_of(original.name) or "") if disposition == "inline" else None
    file_name = quote(original.name.rpartition("/")[2].encode("utf-8", "replace"))
    headers = {"Content-Disposition": f"{'inline' if shown else 'attachment'}; filename*=UTF-8''{file_name}"}
    if shown:
        headers |= {"Content-Security-Policy": _PDF_POLICY, "X-Frame-Options": "SAMEORIGIN"}
    return Response(original.content, media_type=shown or "application/octet-stream", headers=headers)


@router.get(
    "/{name}/passages/{document_id:path}", responses=errors(404, 409), summary="A place in its context"
)
def get_passage(
    name: Name,
    document_id: Id,
    request: Request,
    start: Annotated[int, Query(ge=0, le=2**31, description="Where it begins, in code points.")],
    end: Annotated[int, Query(ge=1, le=2**31, description="Where it ends.")],
    context: Annotated[int, Query(ge=0, le=20_000, description="Characters before and after.")] = 300,
) -> PlaceView:
    """`before + text + after` is a slice of the document's text."""
    with service_of(request).collection(name, key_of(request)) as collection:
        document = _document(collection, document_id)
    length = len(document.text)
    if not start < end <= length:
        raise InputError(f"{start} to {end} isn't a place in a text of {length} characters")
    first, last = max(0, start - context), min(length, end + context)
    pages = [number for number, begins in enumerate(document.page_starts, 1) if begins <= start]
    return PlaceView(
        document_id=document.id,
        title=document.title,
        source=document.source,
        language=document.language,
        page=pages[-1] if pages else None,
        start=start,
        end=end,
        text=document.text[start:end],
        before=document.text[first:start],
        after=document.text[end:last],
        context_start=first,
        context_end=last,
    )
