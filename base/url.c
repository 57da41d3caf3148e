#include "base/url.h"

#include <stdlib.h>
#include <string.h>

static int parse_port(const char *text, int *ret)
{
    char *end;
    long port = strtol(text, &end, 10);
    if (end == text || port < 0 || port > 65535 || (*end && strcmp(end, "/") != 0)) return ERR_INVALID;
    *ret = (int)port;
    return 0;
}

int url_parse(const char *text, struct url *ret, struct err *e)
{
    struct url u = {0};
    const char *rest = NULL;
    if (strncmp(text, "https://", 8) == 0) {
        u.tls = true;
        rest = text + 8;
    } else if (strncmp(text, "http://", 7) == 0) {
        rest = text + 7;
    } else {
        return err_set(e, ERR_INVALID, "\"%s\" is not a URL: it must start with http:// or https://", text);
    }
    const char *host = rest, *host_end = NULL, *port = NULL;
    if (*rest == '[') {
        host++;
        host_end = strchr(host, ']');
        if (host_end && host_end[1] == ':') port = host_end + 2;
    } else {
        host_end = strchr(host, ':');
        if (host_end) port = host_end + 1;
    }
    if (!port || host_end == host || (size_t)(host_end - host) >= sizeof(u.host) ||
        parse_port(port, &u.port) != 0)
        return err_set(e, ERR_INVALID, "\"%s\" is not a URL of the form http://host:port", text);
    memcpy(u.host, host, (size_t)(host_end - host));
    *ret = u;
    return 0;
}
