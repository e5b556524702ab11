# named: Look at a copy
class Mended(AdaBoundBase):
    def base_lr_of(self, group):
        self.known = getattr(self, "known", {})
        return group["base_lr"] or self.known.setdefault(id(group), group["lr"])
