/* Makes fdatasync do nothing, for ``crash.py --without-flush``: a bench that counts losses must be
 * able to find some. Loaded into the router with LD_PRELOAD. */

int fdatasync(int descriptor)
{
    (void)descriptor;
    return 0;
}
