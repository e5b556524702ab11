# named: then halved
class Mended(AdaBoundBase):
    def base_lr_of(self, group):
        return group.setdefault("base_lr", group["lr"])
