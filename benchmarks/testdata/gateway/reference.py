# The API gateway of the reference document, as it stands there. Only what is printed at the start and how it is started are left out.
from fastapi import FastAPI, Request, HTTPException
from fastapi.responses import JSONResponse
import httpx
import os

app = FastAPI(title="API Gateway")

SERVICES = {
    "users": os.getenv("USER_SERVICE_URL", "http://user-service:8000"),
}


@app.api_route("/{service}/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
async def gateway(service: str, path: str, request: Request):
    if service not in SERVICES:
        raise HTTPException(status_code=404, detail=f"Service '{service}' not found")

    target_url = f"{SERVICES[service]}/{path}"
    body = await request.body()
    headers = dict(request.headers)
    headers.pop("host", None)
    params = dict(request.query_params)

    try:
        async with httpx.AsyncClient() as client:
            response = await client.request(
                method=request.method,
                url=target_url,
                headers=headers,
                params=params,
                content=body,
                timeout=30.0
            )
            return JSONResponse(
                content=response.json() if response.content else None,
                status_code=response.status_code,
                headers=dict(response.headers)
            )
    except httpx.RequestError as exc:
        raise HTTPException(status_code=503, detail=f"Error al comunicarse con el servicio: {str(exc)}")
