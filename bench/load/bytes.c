/* Bytes that come and go. */

#include "load.h"

uint8_t *grow(struct bytes *bytes, size_t count)
{
    if (bytes->begin == bytes->end)
        bytes->begin = bytes->end = 0;
    if (bytes->end + count > bytes->room) {
        if (bytes->begin)
            memmove(bytes->data, bytes->data + bytes->begin, bytes->end - bytes->begin);
        bytes->end -= bytes->begin;
        bytes->begin = 0;
        if (bytes->end + count > bytes->room) {
            bytes->room = 2 * (bytes->end + count);
            bytes->data = realloc(bytes->data, bytes->room);
            if (!bytes->data)
                die("no memory");
        }
    }
    return bytes->data + bytes->end;
}

void add(struct bytes *bytes, const void *data, size_t count)
{
    memcpy(grow(bytes, count), data, count);
    bytes->end += count;
}

uint8_t *read_file(const char *name, size_t *size)
{
    FILE *file = fopen(name, "rb");
    struct bytes bytes = {0};
    if (!file)
        die("%s: %s", name, strerror(errno));
    for (size_t got = 1; got > 0; bytes.end += got)
        got = fread(grow(&bytes, 1 << 16), 1, 1 << 16, file);
    fclose(file);
    *size = bytes.end;
    return bytes.data;
}

void put_u32(uint8_t *at, uint32_t value)
{
    value = htonl(value);
    memcpy(at, &value, 4);
}

uint64_t get_big_endian(const uint8_t *at, int count)
{
    uint64_t value = 0;
    while (count--)
        value = value << 8 | *at++;
    return value;
}

void put_u64(uint8_t *at, uint64_t value)
{
    put_u32(at, (uint32_t)(value >> 32));
    put_u32(at + 4, (uint32_t)value);
}
